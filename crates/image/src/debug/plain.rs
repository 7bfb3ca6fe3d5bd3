//! Which classes of C++ are passed like structures of C.

use gimli::{AttributeValue, UnitOffset};

use super::{
    DebugError, DebugInfo, Type, TypeRef,
    reader::Section,
    types::{MAX_LAYERS, unsigned},
    units::{Entry, EntryRef, Unit},
};

impl DebugInfo {
    /// Whether a structure, with all in it, can be copied like its bytes, as far as is known: then it is passed
    /// like C's. It can where the compiler says so, or where nobody wrote a destructor or what copies or moves it
    /// (Itanium C++ ABI, "non-trivial for the purposes of calls").
    pub(super) fn is_plain(&self, type_ref: TypeRef, depth: usize) -> Result<bool, DebugError> {
        if depth > MAX_LAYERS {
            return Ok(false);
        }
        let members = match self.type_of(type_ref)? {
            Type::Structure {
                members,
                by_reference: false,
                ..
            } => members,
            Type::Structure { .. } | Type::Other(_) => return Ok(false),
            Type::Array { of, .. } => return self.is_plain(of, depth + 1),
            _ => return Ok(true),
        };
        let at = self.unnamed(type_ref.0)?;
        let (unit, entry) = self.entry(at)?;
        if let Some(AttributeValue::CallingConvention(gimli::DW_CC_pass_by_value)) =
            entry.attr_value(gimli::DW_AT_calling_convention)
        {
            return Ok(true);
        }
        let mut tree = unit.entries_tree(Some(UnitOffset(at.offset)))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            if child.entry().tag() == gimli::DW_TAG_subprogram
                && self.is_own_copy(&unit, at, child)?
            {
                return Ok(false);
            }
        }
        for member in members {
            if member.name.starts_with("_vptr") || !self.is_plain(member.type_ref, depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a function of a class is its destructor, or a constructor that copies or moves it, which
    /// somebody wrote.
    fn is_own_copy(
        &self,
        unit: &Unit,
        class: EntryRef,
        function: gimli::EntriesTreeNode<'_, '_, Section>,
    ) -> Result<bool, DebugError> {
        let entry = function.entry();
        let is_set = |entry: &Entry, name| {
            matches!(entry.attr_value(name), Some(AttributeValue::Flag(true)))
        };
        // The compiler's own does what those of the members do; so does one that is `= default` in the class.
        let in_class =
            unsigned(entry, gimli::DW_AT_defaulted) == Some(gimli::DW_DEFAULTED_in_class.0.into());
        if is_set(entry, gimli::DW_AT_artificial) || in_class {
            return Ok(false);
        }
        let name = self.name(unit, entry).unwrap_or_default();
        if name.starts_with('~') {
            return Ok(true);
        }
        let own = self.name_of(TypeRef(class));
        if name.split('<').next() != own.split('<').next() {
            return Ok(false);
        }
        // A constructor: of what is its first parameter behind `this`?
        let mut parameters = function.children();
        while let Some(parameter) = parameters.next()? {
            let parameter = parameter.entry();
            if parameter.tag() != gimli::DW_TAG_formal_parameter
                || is_set(parameter, gimli::DW_AT_artificial)
            {
                continue;
            }
            let Some(of) = parameter
                .attr_value(gimli::DW_AT_type)
                .and_then(|value| self.reference(class.unit, value))
            else {
                return Ok(true);
            };
            let (_, kind) = self.entry(self.unnamed(of)?)?;
            let is_reference = matches!(
                kind.tag(),
                gimli::DW_TAG_reference_type | gimli::DW_TAG_rvalue_reference_type
            );
            if !is_reference {
                return Ok(false);
            }
            let Type::Pointer { to: Some(to), .. } = self.type_of(TypeRef(of))? else {
                return Ok(true);
            };
            return Ok(self.unnamed(to.0)? == class);
        }
        Ok(false)
    }
}
