"""From an answer about a face to the photo's own pixels: moving, lighting, painting and pasting them."""
