"""Where the bytes of a dataset go, a folder or a bucket, and who may write them."""
