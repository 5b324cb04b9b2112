#!/usr/bin/env node
/** The entry: nothing but Node's version is looked at before the program is loaded. */

import module from 'node:module'

const OLDEST = [22, 18]

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
  process.stderr.write(
    `error: lowbit needs Node ${OLDEST.join('.')} or newer, this is ${process.versions.node}\n`,
  )
  process.exitCode = 1
} else {
  // Halves the time to the first word from the second start on.
  module.enableCompileCache?.()
  const { run } = await import('./program.ts')
  await run(process.argv.slice(2))
}
