"""coremltools' own tests, with the ML program evaluator in Core ML's place."""
