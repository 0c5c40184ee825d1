"""The fraud decision service as a Bento: ``service`` is served, ``build`` packs it with one release."""
