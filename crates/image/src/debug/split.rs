//! Debug information that lies in other files than the program's: what `-gsplit-dwarf` puts into a `.dwo`
//! for each unit, or a linker's helper into one `.dwp`.

use std::{cell::OnceCell, rc::Rc};

use gimli::{DwarfPackage, Reader as _};

use super::{
    DebugError,
    reader::Section,
    sections::{self, Dwarf},
    units::Unit,
};
use crate::DebugFiles;

/// Parts in other files.
pub(super) struct Split {
    files: Option<DebugFiles>,
    package: OnceCell<Option<DwarfPackage<Section>>>,
}

impl Split {
    /// To be looked for there.
    pub(super) fn new(files: Option<DebugFiles>) -> Self {
        Self {
            files,
            package: OnceCell::new(),
        }
    }

    /// What was put into another file of a unit; `None` where no such file is found.
    pub(super) fn unit(&self, skeleton: &Unit) -> Result<Option<Unit>, DebugError> {
        let Some(id) = skeleton.dwo_id else {
            return Ok(None);
        };
        if let Some(package) = self.package()
            && let Some(dwarf) = package.find_cu(id, &skeleton.dwarf)?
        {
            return first_unit(dwarf, skeleton);
        }
        let Some(files) = &self.files else {
            return Ok(None);
        };
        let text = |section: &Section| section.to_string_lossy().map(|text| text.into_owned());
        let Some(name) = skeleton.dwo_name()? else {
            return Ok(None);
        };
        let name = text(&skeleton.dwarf.attr_string(skeleton, name)?)?;
        let folder = skeleton.comp_dir.as_ref().map(text).transpose()?;
        for file in files.split(folder.as_deref().unwrap_or_default(), &name) {
            let Ok(mut dwarf) = sections::split(&file) else {
                continue;
            };
            dwarf.make_dwo(&skeleton.dwarf);
            if let Some(unit) = first_unit(dwarf, skeleton)?
                && unit.dwo_id == Some(id)
            {
                return Ok(Some(unit));
            }
        }
        Ok(None)
    }

    /// The unit of a type in the package.
    pub(super) fn types(
        &self,
        signature: u64,
        parent: &Dwarf,
    ) -> Result<Option<Rc<Dwarf>>, DebugError> {
        let Some(package) = self.package() else {
            return Ok(None);
        };
        let found = package.find_tu(gimli::DebugTypeSignature(signature), parent)?;
        Ok(found.map(Rc::new))
    }

    fn package(&self) -> Option<&DwarfPackage<Section>> {
        self.package
            .get_or_init(|| {
                let file = self.files.as_ref()?.package()?;
                sections::package(&file)
                    .inspect_err(|error| log::debug!("the package of debug information: {error}"))
                    .ok()
            })
            .as_ref()
    }
}

/// The unit of code in a file of its own.
fn first_unit(dwarf: Dwarf, skeleton: &Unit) -> Result<Option<Unit>, DebugError> {
    let dwarf = Rc::new(dwarf);
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        // Of types, in DWARF 5.
        if !matches!(
            header.type_(),
            gimli::UnitType::SplitType { .. } | gimli::UnitType::Type { .. }
        ) {
            return Ok(Some(Unit::new(&dwarf, header)?.completed_by(skeleton)));
        }
    }
    Ok(None)
}
