"""Hyperparameter search: studies of trials that are ordinary runs."""
