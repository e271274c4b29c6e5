"""Bases and small layers that the networks share."""
