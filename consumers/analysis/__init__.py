"""Evaluates the files of paper runs: acceptance, statistics, reports."""
