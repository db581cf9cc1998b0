//! Tells the linker how a Node-API addon is linked on this target.

fn main() {
    napi_build::setup();
}
