/**
 * The studio in headless Chromium. CHROMIUM names the executable, PICTURES a folder for screenshots; arguments
 * choose checks by parts of their names: `npm run test:studio -- keyboard axe`.
 */

import { mkdirSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { findChromium, launch, MISSING } from './src/chromium.ts'
import { STUDIO_CHECKS } from './src/studio/checks.ts'
import { buildStudio, serveStudio } from './src/studio/site.ts'

const executable = findChromium()
if (!executable) {
  console.log(`skipped the tests of the studio: ${MISSING}`)
  process.exit(0)
}
const wanted = process.argv.slice(2)
const pictures = process.env.PICTURES ?? mkdtempSync(path.join(tmpdir(), 'lowbit-pictures-'))
mkdirSync(pictures, { recursive: true })
buildStudio()
const browser = await launch(executable)
const { url, close } = await serveStudio()
let failed = 0
for (const { name, run } of STUDIO_CHECKS) {
  if (wanted.length > 0 && !wanted.some((part) => name.includes(part))) continue
  const started = performance.now()
  const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(0)} s`
  try {
    const note = await run({ executable, browser, url, pictures })
    const sign = typeof note === 'string' && note.startsWith('skipped') ? '–' : '✓'
    console.log(`${sign} ${name}${typeof note === 'string' ? `: ${note}` : ''}, ${seconds()}`)
  } catch (error) {
    failed++
    console.log(
      `✗ ${name}, ${seconds()}\n    ${(error as Error).message.replaceAll('\n', '\n    ')}`,
    )
  }
}
await browser.close()
close()
console.log(
  failed === 0 ? `screenshots: ${pictures}` : `${failed} failed; screenshots: ${pictures}`,
)
process.exit(failed > 0 ? 1 : 0)
