"""What the signature ``image_bytes`` takes, as text."""

#: What the graph decodes, and what it refuses though training reads it: TensorFlow has no such decoder, or it gives
#: other pixels.
DECODED = (
    "JPEG in grey and colour, PNG, GIF whose first frame fills it, WebP of one frame, and uncompressed BMP of 8, 24 "
    "and 32 bits"
)
PILLOW_ONLY = "TIFF, PPM, CMYK JPEG, animated WebP, and other GIF and BMP"
