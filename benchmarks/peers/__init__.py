"""What Switchyard is measured against, each as most people first write it; run as programs of their own."""
