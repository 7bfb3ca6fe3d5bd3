//! A function's entry: parameters and result.

use gimli::{AttributeValue, UnitOffset};

use super::{
    DebugError, DebugInfo, Type, TypeRef,
    location::{self, Home},
    reader::Section,
    units::{Entry, EntryRef, MAX_TYPES, Unit, UnitFunctions},
};

/// Parameters of a function that are looked at.
const MAX_PARAMETERS: usize = 256;
/// Entries that name each other (declaration, abstract instance), at most.
const MAX_ORIGINS: usize = 8;

/// A parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// As in the source.
    pub name: String,
    /// Its type.
    pub type_ref: Option<TypeRef>,
    /// Go: it is a result.
    pub is_result: bool,
    location: Option<AttributeValue<Section>>,
}

/// What is known of a function.
pub struct FunctionInfo<'a> {
    info: &'a DebugInfo,
    unit: usize,
    frame_base: Option<gimli::Expression<Section>>,
    /// Parameters in the order of the source.
    pub parameters: Vec<Parameter>,
    /// Type of the result; `None` for none.
    pub result: Option<TypeRef>,
    /// Minor version of the rustc that compiled it, where one did.
    pub rustc: Option<u32>,
    /// It takes more than its parameters, or nothing says which (`f(int, ...)`, `f()` in C).
    pub is_variadic: bool,
    /// A compiler of GCC's made it.
    pub is_gcc: bool,
}

impl DebugInfo {
    /// What is known of the function that begins at `address`; `None` where nothing is.
    ///
    /// # Errors
    /// Where the debug information makes no sense.
    pub(super) fn find_function(
        &self,
        address: u64,
    ) -> Result<Option<FunctionInfo<'_>>, DebugError> {
        self.types_left.set(MAX_TYPES);
        let Some(offset) = self.unit_of(address)? else {
            return Ok(None);
        };
        let unit = self.unit(offset)?;
        let Some(entry) = self.entry_of(&unit, offset, address)? else {
            if unit.dwo_id.is_some() {
                return super::not(
                    "its debug information lies in a file of its own (.dwo, .dwp), which was not found",
                );
            }
            return Ok(None);
        };
        let at = EntryRef {
            unit: offset,
            offset: entry,
        };
        self.read_function(at).map(Some)
    }

    /// Place of the function's entry in its unit.
    fn entry_of(
        &self,
        unit: &Unit,
        offset: usize,
        address: u64,
    ) -> Result<Option<usize>, DebugError> {
        let mut known = self.functions.borrow_mut();
        if let Some(functions) = known.get(&offset) {
            return Ok(functions.by_address.get(&address).copied());
        }
        let mut functions = UnitFunctions::default();
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            if entry.tag() == gimli::DW_TAG_inlined_subroutine
                && let Some(AttributeValue::UnitRef(origin)) =
                    entry.attr_value(gimli::DW_AT_abstract_origin)
            {
                let begins = match entry.attr_value(gimli::DW_AT_low_pc) {
                    Some(value) => unit.dwarf.attr_address(unit, value)?,
                    None => first_of(unit, entry),
                };
                // Without an address nothing is left of it.
                if let Some(address) = begins {
                    functions.inlined.entry(origin.0).or_default().push(address);
                }
            }
            if entry.tag() != gimli::DW_TAG_subprogram {
                continue;
            }
            let Some(value) = entry.attr_value(gimli::DW_AT_low_pc) else {
                // In pieces: the first is where it begins.
                if let Some(begin) = first_of(unit, entry) {
                    functions.by_address.insert(begin, entry.offset().0);
                }
                continue;
            };
            if let Some(low) = unit.dwarf.attr_address(unit, value)? {
                functions.by_address.insert(low, entry.offset().0);
            }
        }
        let found = functions.by_address.get(&address).copied();
        known.insert(offset, functions);
        Ok(found)
    }

    /// Where the function at `address` was inlined in its own unit, ascending: calls there are not seen.
    ///
    /// # Errors
    /// Where the debug information makes no sense.
    pub(super) fn read_inlined_places(&self, address: u64) -> Result<Vec<u64>, DebugError> {
        let Some(offset) = self.unit_of(address)? else {
            return Ok(Vec::new());
        };
        let unit = self.unit(offset)?;
        let Some(place) = self.entry_of(&unit, offset, address)? else {
            return Ok(Vec::new());
        };
        let entry = unit.entry(UnitOffset(place))?;
        // The function itself may be an instance of what was inlined.
        let origin = match entry.attr_value(gimli::DW_AT_abstract_origin) {
            Some(AttributeValue::UnitRef(origin)) => origin.0,
            _ => place,
        };
        let known = self.functions.borrow();
        let places = known
            .get(&offset)
            .and_then(|functions| functions.inlined.get(&origin));
        let mut places = places.cloned().unwrap_or_default();
        places.sort_unstable();
        Ok(places)
    }

    fn read_function(&self, at: EntryRef) -> Result<FunctionInfo<'_>, DebugError> {
        let (unit, entry) = self.entry(at)?;
        let producer = self.producer_of(&unit).unwrap_or_default();
        let mut info = FunctionInfo {
            info: self,
            unit: at.unit,
            frame_base: entry
                .attr_value(gimli::DW_AT_frame_base)
                .and_then(|value| value.exprloc_value()),
            parameters: Vec::new(),
            result: self.inherited_type(at)?,
            rustc: rustc_of(&producer),
            // `GNU C17 12.2.0 -O2`, `GNU GIMPLE 12.2.0`
            is_variadic: false,
            is_gcc: producer.starts_with("GNU "),
        };
        let mut tree = unit.entries_tree(Some(UnitOffset(at.offset)))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            info.is_variadic |= entry.tag() == gimli::DW_TAG_unspecified_parameters;
            if entry.tag() != gimli::DW_TAG_formal_parameter
                || info.parameters.len() >= MAX_PARAMETERS
            {
                continue;
            }
            let place = EntryRef {
                unit: at.unit,
                offset: entry.offset().0,
            };
            let is_result = matches!(
                entry.attr_value(gimli::DW_AT_variable_parameter),
                Some(AttributeValue::Flag(true))
            );
            let location = entry.attr_value(gimli::DW_AT_location);
            info.parameters.push(Parameter {
                name: self.inherited_name(place)?.unwrap_or_default(),
                type_ref: self.inherited_type(place)?,
                is_result,
                location,
            });
        }
        Ok(info)
    }

    /// The entries that complete each other, from the concrete one on.
    fn origins(
        &self,
        mut at: EntryRef,
        mut visit: impl FnMut(&Unit, EntryRef, &Entry) -> bool,
    ) -> Result<(), DebugError> {
        for _ in 0..MAX_ORIGINS {
            let (unit, entry) = self.entry(at)?;
            if visit(&unit, at, &entry) {
                return Ok(());
            }
            let next = [gimli::DW_AT_abstract_origin, gimli::DW_AT_specification]
                .into_iter()
                .find_map(|name| self.reference(at.unit, entry.attr_value(name)?));
            match next {
                Some(next) => at = next,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Who made a unit.
    fn producer_of(&self, unit: &Unit) -> Option<String> {
        let mut entries = unit.entries();
        let root = entries.next_dfs().ok()??;
        let producer = root.attr_value(gimli::DW_AT_producer)?;
        let text = unit.dwarf.attr_string(unit, producer).ok()?;
        Some(gimli::Reader::to_string_lossy(&text).ok()?.into_owned())
    }

    fn inherited_name(&self, at: EntryRef) -> Result<Option<String>, DebugError> {
        let mut found = None;
        self.origins(at, |unit, _, entry| {
            found = self.name(unit, entry);
            found.is_some()
        })?;
        Ok(found)
    }

    fn inherited_type(&self, at: EntryRef) -> Result<Option<TypeRef>, DebugError> {
        let mut found = None;
        self.origins(at, |_, at, entry| {
            found = entry
                .attr_value(gimli::DW_AT_type)
                .and_then(|value| self.reference(at.unit, value))
                .map(TypeRef);
            found.is_some()
        })?;
        Ok(found)
    }
}

/// `clang LLVM (rustc version 1.95.0 (59807616e 2026-04-14))`.
fn rustc_of(producer: &str) -> Option<u32> {
    let version = producer.split("rustc version 1.").nth(1)?;
    version.split('.').next()?.parse().ok()
}

/// Where the code of an entry begins.
fn first_of(unit: &Unit, entry: &Entry) -> Option<u64> {
    let ranges = unit.ranges(entry).ok()?;
    ranges.first().map(|(begin, _)| *begin)
}

impl FunctionInfo<'_> {
    /// Where a parameter lies when the instruction at `address` is about to run.
    ///
    /// # Errors
    /// With the reason where it can't be told.
    pub fn home(&self, parameter: &Parameter, address: u64) -> Result<Home, DebugError> {
        let unit = self.info.unit(self.unit)?;
        location::at(
            &unit,
            self.frame_base.as_ref(),
            parameter.location.clone(),
            address,
        )
    }

    /// Where an argument of the function at `start` is at its entry site `address`, before which no argument's register
    /// is written.
    ///
    /// # Errors
    /// As [`home`](Self::home).
    pub fn home_at_entry(
        &self,
        parameter: &Parameter,
        start: u64,
        address: u64,
    ) -> Result<Home, DebugError> {
        let unit = self.info.unit(self.unit)?;
        let (frame, location) = (self.frame_base.as_ref(), parameter.location.clone());
        match location::at_start(&unit, frame, location, start)? {
            Some(home) => Ok(home),
            None => self.home(parameter, address),
        }
    }

    /// Whether it is said to be in one place for the whole function.
    pub fn is_in_one_place(&self, parameter: &Parameter) -> bool {
        let location = parameter.location.as_ref();
        location.is_some_and(|location| location.exprloc_value().is_some())
    }

    /// What a type is.
    ///
    /// # Errors
    /// Where the debug information makes no sense.
    pub fn type_of(&self, type_ref: TypeRef) -> Result<Type, DebugError> {
        self.info.type_of(type_ref)
    }

    /// The type of the Rust future whose poll this is: `Pin<&mut {async_fn_env#0}>` is its first parameter's.
    pub fn future_type(&self) -> Option<TypeRef> {
        let mut type_ref = self.parameters.first()?.type_ref?;
        if let Type::Structure { members, .. } = self.type_of(type_ref).ok()? {
            let [pointer] = members.as_slice() else {
                return None;
            };
            type_ref = pointer.type_ref;
        }
        match self.type_of(type_ref).ok()? {
            Type::Pointer { to, .. } => to,
            _ => None,
        }
    }

    /// The qualified name of a type.
    pub fn name_of(&self, type_ref: TypeRef) -> String {
        self.info.name_of(type_ref)
    }

    /// Whether a structure, with all in it, has no constructor or destructor.
    ///
    /// # Errors
    /// Where the debug information makes no sense.
    pub fn is_plain(&self, type_ref: TypeRef) -> Result<bool, DebugError> {
        self.info.is_plain(type_ref, 0)
    }
}
