"""What is known of the machine: device, number types, memory, C code. Knows only core."""
