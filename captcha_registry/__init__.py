"""Reproducible captcha datasets: drawn from a seed, split, verified, read by trained recognizers."""
