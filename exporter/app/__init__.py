"""The top floor, and the only one with a clock, an event loop, files, signals, environment and logging."""
