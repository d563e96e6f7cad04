//! `#[derive(Trace)]`: proves that a struct can live in the heap, and describes where its references lie.
//!
//! The derive accepts structs without type parameters. It refuses enums and unions (a reference inside a
//! variant could change its meaning while the collector reads it) and, by assertions at compile time, types
//! with `Drop` or with an alignment above a word's. Each field must itself be allowed in the heap
//! (`firn::HeapField`).

use proc_macro::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, parse_macro_input};

/// Makes a struct a heap type. See `firn::Trace`.
#[proc_macro_derive(Trace, attributes(trace))]
pub fn derive_trace(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand(input: &DeriveInput) -> Result<proc_macro2::TokenStream, Error> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "only structs can be heap types: a reference inside an enum's variant could change its meaning while the collector reads it (use a struct per variant, or a tagged word)",
        ));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "heap types have no type or lifetime parameters: their layout is registered once for each type",
        ));
    }
    let name = &input.ident;
    let text = name.to_string();
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    let members: Vec<_> = data.fields.members().collect();
    let mut extends = quote! {};
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("trace")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("extends") {
                return Err(meta.error("the only argument is `extends`"));
            }
            let (Some(base), Some(member)) = (types.first(), members.first()) else {
                return Err(meta.error("a type that extends another has it as its first field"));
            };
            extends = quote! {
                const _: () = assert!(
                    ::core::mem::offset_of!(#name, #member) == 0,
                    "the type that is extended must lie first: add #[repr(C)]",
                );
                // SAFETY: a value of the base type lies at offset 0.
                unsafe impl ::firn::Extends<#base> for #name {}
            };
            Ok(())
        })?;
    }
    Ok(quote! {
        #extends
        const _: () = {
            assert!(!::core::mem::needs_drop::<#name>(), "heap types cannot have Drop: their memory is reclaimed without running code");
            assert!(::core::mem::align_of::<#name>() <= 8, "heap types are aligned to a word at most");
        };
        // SAFETY: every field reports its references at its own offset, and has them accessed atomically.
        unsafe impl ::firn::HeapField for #name {
            fn slots(at: usize, slots: &mut ::firn::Slots) {
                #(<#types as ::firn::HeapField>::slots(at + ::core::mem::offset_of!(#name, #members), slots);)*
            }
        }
        // SAFETY: the fields describe the type completely; drop and alignment are asserted above.
        unsafe impl ::firn::Trace for #name {
            const NAME: &'static str = #text;
            fn cell() -> &'static ::firn::LayoutCell {
                static CELL: ::firn::LayoutCell = ::firn::LayoutCell::new();
                &CELL
            }
        }
    })
}
