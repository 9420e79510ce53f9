"""The corpus for pre-training a base model: kinds of documents, their rates, their batches.

Rules and random numbers write puzzles with their working (`traces`), pages of arithmetic and
products (`drills`), with a rate for each behaviour (`bases`). `shards` makes batches of them, and
`writers` does that in other processes, ahead of the trainer. No torch, so these start quickly.

Decisions: docs/decisions/corpus.md
"""
