"""Pictures, words and the HTML page made from attributions."""
