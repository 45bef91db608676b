"""Who fetches what is planned: planned executions in, flat bundles out. This process does, or the workers of a Dask cluster."""
