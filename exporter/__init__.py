"""model-health-exporter: watches ML models in production and exports their health as Prometheus metrics."""

__version__ = "0.1.0"
