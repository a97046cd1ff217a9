"""Expressions by a morphable 3D face model that drives the photo's own pixels."""
