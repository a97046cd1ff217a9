"""Trains the painter of mouths: see `exprtool_mouth.loop`."""
