"""Fitted corrections: smooth tables over physical coordinates, and their evaluation."""
