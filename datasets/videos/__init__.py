"""What the data sets made of video files share: finding, decoding, writing, flags."""
