//! Images from a registry, pull policies, the image command; clusters without root or containerd.
