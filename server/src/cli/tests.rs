//! What a person types, and what comes of it.
