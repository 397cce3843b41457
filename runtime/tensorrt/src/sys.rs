//! What the shim's header declares, and the dialects that were compiled.

#![allow(non_camel_case_types, non_snake_case, unreachable_pub, clippy::all, dead_code)]
#![allow(clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// Declares the functions that hand out the tables, and lists them.
macro_rules! dialects {
    ($($table:ident),*) => {
        // SAFETY: the shim defines each of them like this.
        unsafe extern "C" {
            $(fn $table() -> *const TrtApi;)*
        }

        pub(crate) static DIALECTS: &[unsafe extern "C" fn() -> *const TrtApi] = &[$($table),*];
    };
}
include!(concat!(env!("OUT_DIR"), "/dialects.rs"));

/// Calls a function of the table. The shim fills its table whole, so none is missing.
macro_rules! call {
    ($api:expr, $function:ident($($argument:expr),* $(,)?)) => {
        ($api.$function.expect(concat!("the shim fills `", stringify!($function), "`")))($($argument),*)
    };
}
pub(crate) use call;
