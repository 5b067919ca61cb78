"""What the report says of many datasets together: trends of detectors, failures, figures of merit, throughput."""
