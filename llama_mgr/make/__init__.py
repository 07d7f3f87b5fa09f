"""Making models: converting, quantizing, importance matrices, measuring, and the pipeline of all of these."""
