"""Who fetches what is planned: this process, or the workers of a Dask cluster. Plans go in, flat bundles come out."""
