"""Messages over Kafka: the only place that imports its client, which is an extra."""
