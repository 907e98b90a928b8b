"""Whether a technique helps: variants of a run beside it, on the same seeds and the same batches."""
