"""Bentos: one folder per service that is packed and served. They import ``switchyard`` and nothing else."""
