"""What a base model reads in pre-training: the documents, how often each kind, in which batches.

Puzzles, pages of arithmetic and products are written by rules and chance, with a rate for each
behaviour (`mix`). `documents` is the stream, `shards` turns it into batches, `writers` lets other
processes do that ahead of the trainer. No torch: a process that writes opens at once.

Decisions: docs/decisions/corpus.md
"""
