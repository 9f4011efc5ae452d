"""Trained models as folders that load alone: code, weights, model cards."""
