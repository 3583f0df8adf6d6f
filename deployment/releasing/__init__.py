"""Step-by-step releases: a challenger beside the champion, judged, promoted or taken back."""
