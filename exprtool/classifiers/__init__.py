"""Networks that name the expression on a face: independent judges of what a backend makes."""
