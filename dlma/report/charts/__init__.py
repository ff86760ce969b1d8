"""Charts as SVG text; everything that they show comes as numbers and plain text, which they escape."""
