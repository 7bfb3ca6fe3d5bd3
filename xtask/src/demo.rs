//! The demonstration: a payment service in C++, traced for ten seconds.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::shell::{Result, again_as_root, build_agent_quickly, need, root, run, step, target_dir};

pub(crate) fn demo() -> Result<()> {
    if again_as_root()? {
        return Ok(());
    }
    need(&[("g++", "g++")])?;
    let agent = build_agent_quickly()?;
    let folder = target_dir().join("demo");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let service = folder.join("payment-service");
    step("building the payment service", || {
        run(Command::new("g++")
            .args(["-O2", "-pthread", "-o"])
            .arg(&service)
            .arg(root().join("demo/payment.cpp")))
    })?;

    let mut running = Command::new(&service)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("{}: {error}", service.display()))?;
    let pid = running.id().to_string();
    println!("\nA payment service runs as process {pid}; it knows nothing of being traced.");
    println!("$ sudo teracron-agent --pid {pid} --probe 'payment:shop::*' --duration 10\n");
    let result = run(Command::new(&agent).args([
        "--pid",
        &pid,
        "--probe",
        "payment:shop::*",
        "--duration",
        "10",
    ]));
    let alive = matches!(running.try_wait(), Ok(None));
    let _ = running.kill();
    let _ = running.wait();
    result?;
    if !alive {
        return Err("the service ended while it was traced".to_owned());
    }
    println!("\nThe service ran on, unchanged.");
    Ok(())
}
