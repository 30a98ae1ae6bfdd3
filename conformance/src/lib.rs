//! Black-box checks of any directory of CNI plugins.
