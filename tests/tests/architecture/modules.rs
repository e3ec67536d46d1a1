//! A crate's modules, read from its sources: which names each has and which paths it uses. What only tests see is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Stmt, UseTree};

/// A crate's files by their paths below `src/`, each followed by those in its folder.
pub type Files = BTreeMap<String, File>;

/// A file and what it uses of the others.
#[derive(Default)]
pub struct File {
    /// The first line of its description.
    pub about: String,
    /// The files that it uses, with the paths by which it does.
    pub uses: BTreeMap<String, BTreeSet<String>>,
}

/// Reads the crate in this folder, from `lib.rs` and `main.rs` on along `mod` declarations.
pub fn read_crate(folder: &Path) -> Files {
    let src = folder.join("src");
    let mut files = Files::new();
    for root in ["lib.rs", "main.rs"].into_iter().filter(|root| src.join(root).exists()) {
        let mut reader = Reader { src: &src, files: &mut files, modules: Vec::new() };
        reader.read_file(Path::new(""), root.to_owned(), None);
        reader.resolve_paths();
    }
    assert!(!files.is_empty(), "there are no sources in {}", src.display());
    files
}

/// A module: a file, or one that is written out within a file.
struct Module {
    file: String,
    parent: Option<usize>,
    children: HashMap<String, usize>,
    items: HashSet<String>,
    paths: Paths,
}

/// What a path names: a module, or something within one.
#[derive(Clone, Copy)]
enum Target {
    Module(usize),
    Within(usize),
}

struct Reader<'a> {
    src: &'a Path,
    files: &'a mut Files,
    modules: Vec<Module>,
}

impl Reader<'_> {
    /// Reads a file, and the files that it declares, which are in `folder`.
    fn read_file(&mut self, folder: &Path, path: String, parent: Option<usize>) -> usize {
        let text =
            std::fs::read_to_string(self.src.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let about = text.strip_prefix("//! ").and_then(|said| said.lines().next()).unwrap_or_default();
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        self.files.insert(path.clone(), File { about: about.to_owned(), uses: BTreeMap::new() });
        self.read_module(folder, path, parent, &parsed.items)
    }

    fn read_module(&mut self, folder: &Path, file: String, parent: Option<usize>, items: &[Item]) -> usize {
        let mut paths = Paths::default();
        items.iter().for_each(|item| paths.visit_item(item));
        let items_here = items.iter().filter_map(name_of).collect();
        let module = self.modules.len();
        self.modules.push(Module {
            file: file.clone(),
            parent,
            children: HashMap::new(),
            items: items_here,
            paths,
        });
        for item in items {
            let Item::Mod(declared) = item else { continue };
            if only_for_tests(&declared.attrs) {
                continue;
            }
            let name = declared.ident.to_string();
            let within = folder.join(&name);
            let child = match &declared.content {
                Some((_, items)) => self.read_module(&within, file.clone(), Some(module), items),
                None => {
                    let beside = folder.join(format!("{name}.rs"));
                    let path = if self.src.join(&beside).exists() { beside } else { within.join("mod.rs") };
                    self.read_file(&within, path.to_string_lossy().into_owned(), Some(module))
                }
            };
            self.modules[module].children.insert(name, child);
        }
        module
    }

    /// Notes for each file which others its paths lead to.
    fn resolve_paths(&mut self) {
        for (at, module) in self.modules.iter().enumerate() {
            for path in &module.paths.used {
                let Some(Target::Module(used) | Target::Within(used)) = self.resolve(at, path, 0) else {
                    continue;
                };
                let used = &self.modules[used].file;
                if *used != module.file {
                    let uses = &mut self.files.get_mut(&module.file).expect("it was read").uses;
                    uses.entry(used.clone()).or_default().insert(path.join("::"));
                }
            }
        }
    }

    /// Where a path that is written in a module leads; nowhere if out of the crate.
    fn resolve(&self, at: usize, path: &[String], depth: usize) -> Option<Target> {
        // Two modules that take all names from each other would go on for ever.
        if depth > 20 {
            return None;
        }
        let (mut at, mut rest) = (at, path);
        while let [first, after @ ..] = rest {
            at = match first.as_str() {
                "crate" => 0,
                "self" => at,
                "super" => self.modules[at].parent?,
                _ => break,
            };
            rest = after;
        }
        let [name, after @ ..] = rest else { return Some(Target::Module(at)) };
        let module = &self.modules[at];
        let found = if let Some(&child) = module.children.get(name) {
            Target::Module(child)
        } else if module.items.contains(name) {
            Target::Within(at)
        } else if let Some(import) = module.paths.imports.get(name).filter(|import| import.as_slice() != path)
        {
            self.resolve(at, import, depth + 1)?
        } else {
            let name = std::slice::from_ref(name);
            module.paths.globs.iter().find_map(|glob| self.resolve(at, &[glob, name].concat(), depth + 1))?
        };
        match found {
            Target::Module(child) if !after.is_empty() => self.resolve(child, after, depth + 1),
            found => Some(found),
        }
    }
}

/// The paths of one module, without those of the modules within it.
#[derive(Default)]
struct Paths {
    /// Names that `use` brings in, with the paths they stand for.
    imports: HashMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    used: BTreeSet<Vec<String>>,
}

impl Paths {
    fn import(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| match name.to_string().as_str() {
            "self" if !before.is_empty() => before.to_vec(),
            name => [before, &[name.to_owned()]].concat(),
        };
        match tree {
            UseTree::Path(tree) => self.import(&with(&tree.ident), &tree.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(before, tree)),
            UseTree::Glob(_) => {
                self.used.insert(before.to_vec());
                self.globs.push(before.to_vec());
            }
            UseTree::Name(tree) => self.import_as(with(&tree.ident), None),
            UseTree::Rename(tree) => self.import_as(with(&tree.ident), Some(tree.rename.to_string())),
        }
    }

    fn import_as(&mut self, path: Vec<String>, name: Option<String>) {
        if let Some(name) = name.or(path.last().cloned()) {
            self.imports.insert(name, path.clone());
        }
        self.used.insert(path);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            item if only_for_tests(attributes(item)) => {}
            // A module within has paths of its own.
            Item::Mod(_) => {}
            Item::Use(item) => self.import(&[], &item.tree),
            item => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Const(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !only_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        let tests = match statement {
            Stmt::Local(local) => only_for_tests(&local.attrs),
            Stmt::Macro(called) => only_for_tests(&called.attrs),
            _ => false,
        };
        if !tests {
            visit::visit_stmt(self, statement);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && path.leading_colon.is_none() {
            self.used.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    /// What is within a macro is not parsed: its paths are found by their colons.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        visit::visit_macro(self, called);
        let text = called.tokens.to_string().replace(" :: ", "::").replace(":: ", "::");
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            let path: Vec<String> = word.split("::").map(str::to_owned).collect();
            if path.len() > 1
                && path.iter().all(|name| name.starts_with(|c: char| c.is_alphabetic() || c == '_'))
            {
                self.used.insert(path);
            }
        }
    }
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether a `#[cfg(…)]` leaves this out of every program but tests.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let condition = list.tokens.to_string();
        list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all (test"))
    })
}
