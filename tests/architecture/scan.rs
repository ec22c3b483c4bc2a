//! What one file names and does, outside of its test code.
//!
//! Owns: walking the syntax: `use` trees, paths in expressions, types, patterns, attributes and macros.
//! Must not know: the layers and the rules.
//! Invariant: a path inside macro tokens is found as surely as one outside, as long as it is spelled out.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A path that the file names, as written; a method call is one segment that begins with a dot.
#[derive(Debug)]
pub struct Reference {
    pub segments: Vec<String>,
    /// The module it is written in, from the root of the crate.
    pub within: Vec<String>,
    pub line: usize,
}

/// Everything the rules ask about one file.
#[derive(Debug, Default)]
pub struct Findings {
    pub references: Vec<Reference>,
    /// Lines of `unwrap()` and `expect(` that no comment vouches for.
    pub unproven: Vec<usize>,
    /// Lines that hide the place of source: `#[path]` and `include!`.
    pub hidden: Vec<usize>,
}

/// Scans a file that is the module `module`.
pub fn scan(text: &str, syntax: &syn::File, module: &[String]) -> Findings {
    let mut scan = Scan {
        found: Findings::default(),
        module: module.to_vec(),
        statement: None,
        comments: comment_lines(text),
    };
    scan.visit_file(syntax);
    scan.found
}

/// Whether the item is compiled for tests only: `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
pub fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => requires_test(list),
        meta => meta.path().segments.last().is_some_and(|segment| segment.ident == "test"),
    })
}

fn requires_test(list: &syn::MetaList) -> bool {
    let nested =
        list.parse_args_with(syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated);
    nested.is_ok_and(|nested| {
        nested.iter().any(|meta| match meta {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) => list.path.is_ident("all") && requires_test(list),
            syn::Meta::NameValue(_) => false,
        })
    })
}

struct Scan {
    found: Findings,
    module: Vec<String>,
    /// First line of the statement around, for comments that stand above a long one.
    statement: Option<usize>,
    comments: BTreeSet<usize>,
}

fn line(span: Span) -> usize {
    span.start().line
}

impl Scan {
    fn refer(&mut self, segments: Vec<String>, line: usize) {
        self.found.references.push(Reference { segments, within: self.module.clone(), line });
    }

    fn unwrapped(&mut self, line: usize) {
        let first = self.statement.unwrap_or(line);
        let mut covered = first.saturating_sub(1)..=line;
        if !covered.any(|line| self.comments.contains(&line)) {
            self.found.unproven.push(line);
        }
    }

    fn use_tree(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        let (last, line) = match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(&path.tree, prefix);
                prefix.pop();
                return;
            }
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.use_tree(tree, prefix));
            }
            syn::UseTree::Name(name) => (name.ident.to_string(), line(name.ident.span())),
            syn::UseTree::Rename(rename) => (rename.ident.to_string(), line(rename.ident.span())),
            syn::UseTree::Glob(glob) => ("*".to_owned(), line(glob.star_token.spans[0])),
        };
        let mut segments = prefix.clone();
        // `use a::{self}` names `a`.
        if last != "self" || segments.is_empty() {
            segments.push(last);
        }
        self.refer(segments, line);
    }

    /// Paths, unwraps and clock reads in tokens that have no syntax yet.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => self.literal(literal),
                TokenTree::Ident(ident) => {
                    let after_dot = at > 0 && is_punct(&tokens[at - 1], '.');
                    let called = matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
                    if after_dot && called {
                        self.method(&ident.to_string(), line(ident.span()));
                    } else {
                        at = self.token_path(&tokens, at);
                    }
                }
                TokenTree::Punct(_) => {}
            }
            at += 1;
        }
    }

    /// Follows `a::b::c` or `a::{b, c}` from the identifier at `at`; returns the index of its last token.
    fn token_path(&mut self, tokens: &[TokenTree], mut at: usize) -> usize {
        let start = line(tokens[at].span());
        let mut segments = vec![tokens[at].to_string()];
        while tokens.len() > at + 3 && is_punct(&tokens[at + 1], ':') && is_punct(&tokens[at + 2], ':') {
            match &tokens[at + 3] {
                TokenTree::Ident(ident) => segments.push(ident.to_string()),
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let grouped = TokenTree::Group(group.clone()).into();
                    if let Ok(tree) = syn::parse2::<syn::UseTree>(grouped) {
                        self.use_tree(&tree, &mut segments);
                    }
                    return at + 3;
                }
                _ => break,
            }
            at += 3;
        }
        if segments.len() > 1 {
            self.refer(segments, start);
        }
        at
    }

    /// A path in a string, as `#[serde(with = "crate::text")]` has it.
    fn literal(&mut self, literal: &proc_macro2::Literal) {
        let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) else { return };
        if !text.value().starts_with("crate::") {
            return;
        }
        if let Ok(path) = syn::parse_str::<syn::Path>(&text.value()) {
            self.refer(names(&path), line(literal.span()));
        }
    }

    fn method(&mut self, name: &str, line: usize) {
        if name == "unwrap" || name == "expect" {
            self.unwrapped(line);
        }
        self.refer(vec![format!(".{name}")], line);
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn names(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

macro_rules! skip_tests {
    ($($method:ident $node:ident),* $(,)?) => {$(
        fn $method(&mut self, node: &'ast syn::$node) {
            if !is_test_only(&node.attrs) {
                visit::$method(self, node);
            }
        }
    )*};
}

impl<'ast> Visit<'ast> for Scan {
    skip_tests! {
        visit_item_fn ItemFn, visit_item_impl ItemImpl, visit_item_struct ItemStruct, visit_item_enum ItemEnum,
        visit_item_static ItemStatic, visit_item_type ItemType, visit_item_macro ItemMacro,
        visit_item_trait ItemTrait, visit_impl_item_fn ImplItemFn, visit_impl_item_const ImplItemConst,
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if is_test_only(&node.attrs) {
            return;
        }
        self.module.push(node.ident.to_string());
        if node.content.is_some() {
            visit::visit_item_mod(self, node);
        } else {
            // The file is scanned on its own; only what stands at the declaration belongs here.
            node.attrs.iter().for_each(|attribute| self.visit_attribute(attribute));
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        if !is_test_only(&node.attrs) {
            self.use_tree(&node.tree, &mut Vec::new());
        }
    }

    fn visit_item_const(&mut self, node: &'ast syn::ItemConst) {
        if is_test_only(&node.attrs) {
            return;
        }
        let unproven = self.found.unproven.len();
        visit::visit_item_const(self, node);
        // A constant is evaluated by the compiler: there an `unwrap` that fails does not build.
        self.found.unproven.truncate(unproven);
    }

    fn visit_item_extern_crate(&mut self, node: &'ast syn::ItemExternCrate) {
        self.refer(vec![node.ident.to_string()], line(node.ident.span()));
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        if let (true, Some(first)) = (node.segments.len() > 1, node.segments.first()) {
            self.refer(names(node), line(first.ident.span()));
        }
        visit::visit_path(self, node);
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        if node.path.segments.last().is_some_and(|name| name.ident == "include") {
            self.found.hidden.push(line(node.bang_token.spans[0]));
        }
        visit::visit_macro(self, node);
        self.tokens(node.tokens.clone());
    }

    fn visit_attribute(&mut self, node: &'ast syn::Attribute) {
        if node.path().is_ident("path") {
            self.found.hidden.push(line(node.pound_token.spans[0]));
        }
        visit::visit_attribute(self, node);
        if let syn::Meta::List(list) = &node.meta {
            self.tokens(list.tokens.clone());
        }
    }

    fn visit_expr_method_call(&mut self, node: &'ast syn::ExprMethodCall) {
        self.method(&node.method.to_string(), line(node.method.span()));
        visit::visit_expr_method_call(self, node);
    }

    fn visit_stmt(&mut self, node: &'ast syn::Stmt) {
        let around = self.statement.replace(line(syn::spanned::Spanned::span(node)));
        visit::visit_stmt(self, node);
        self.statement = around;
    }
}

/// Lines that carry a `//` comment, alone or behind code. Documentation is not a comment: it is about the
/// item, not about the call.
fn comment_lines(text: &str) -> BTreeSet<usize> {
    let mut ends: Vec<usize> = vec![0; text.lines().count() + 2];
    if let Ok(tokens) = text.parse::<TokenStream>() {
        mark_ends(tokens, &mut ends);
    }
    let commented = |(index, line): (usize, &str)| {
        let number = index + 1;
        let rest: String = line.chars().skip(ends[number]).collect();
        rest.trim_start().starts_with("//").then_some(number)
    };
    text.lines().enumerate().filter_map(commented).collect()
}

/// Notes for each line the column behind its last token.
fn mark_ends(tokens: TokenStream, ends: &mut [usize]) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                mark_end(group.span_open(), ends);
                mark_end(group.span_close(), ends);
                mark_ends(group.stream(), ends);
            }
            other => mark_end(other.span(), ends),
        }
    }
}

fn mark_end(span: Span, ends: &mut [usize]) {
    let (start, end) = (span.start(), span.end());
    // A token over several lines, such as a string, leaves no room for a comment on any but its last.
    ends[start.line..end.line].fill(usize::MAX);
    ends[end.line] = ends[end.line].max(end.column);
}
