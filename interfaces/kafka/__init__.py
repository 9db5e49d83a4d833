"""The messages of Kafka topics: what callers write there, and what is written for them."""
