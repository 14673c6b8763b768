"""Access control: tokens, authorization of requests, cached projects, and the limits of projects."""
