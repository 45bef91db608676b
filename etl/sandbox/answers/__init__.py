"""The ``result`` objects of the API's answers, one module for each endpoint; knows nothing of HTTP. Pure."""
