"""HTTP: the Open Inference Protocol, typed JSON, and pages; one plain ASGI application before BentoML's."""
