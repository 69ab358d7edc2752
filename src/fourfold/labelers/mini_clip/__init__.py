"""The mini-CLIP: a small image-caption model that is trained in seconds, and its labelers."""
