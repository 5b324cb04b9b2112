/**
 * The kernels' contract in headless Chromium: WebAssembly with threads (a cross-origin isolated page) and without,
 * and WebGPU; bundled by vite together with every package that says it runs in browsers. CHROMIUM names the
 * executable; arguments choose scenarios: `npm run test:browser -- webgpu`.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Report, Request } from './page/checks.worker.ts'
import { bundle } from './src/bundle.ts'
import { findChromium, launch, MISSING } from './src/chromium.ts'
import { serve } from './src/serve.ts'

const SCENARIOS: readonly { name: string; isolated: boolean; request: Request }[] = [
  { name: 'cpu, threads', isolated: true, request: { kernels: 'cpu', threads: 2 } },
  { name: 'cpu, not isolated', isolated: false, request: { kernels: 'cpu' } },
  { name: 'webgpu', isolated: true, request: { kernels: 'webgpu' } },
]

const executable = findChromium()
if (!executable) {
  console.log(`skipped the tests in a browser: ${MISSING}`)
  process.exit(0)
}
const wanted = process.argv.slice(2)
const place = mkdtempSync(path.join(tmpdir(), 'lowbit-browser-'))
let failed = 0
try {
  await bundle(path.join(import.meta.dirname, 'page'), place)
  const browser = await launch(executable)
  console.log(`Chromium ${browser.version()}: ${executable}`)
  try {
    for (const scenario of SCENARIOS) {
      const { name } = scenario
      if (wanted.length > 0 && !wanted.some((part) => name.includes(part))) continue
      const started = performance.now()
      const { variant, isolated, results } = await check(browser, scenario)
      const wrong = results.filter(({ ok }) => !ok)
      failed += wrong.length
      if (isolated !== scenario.isolated) {
        failed++
        console.log(`✗ ${name}: the page is ${isolated ? '' : 'not '}cross-origin isolated`)
      }
      const seconds = ((performance.now() - started) / 1000).toFixed(0)
      const count = `${results.length - wrong.length} of ${results.length} checks right`
      console.log(`${wrong.length === 0 ? '✓' : '✗'} ${name} (${variant}): ${count}, ${seconds} s`)
      for (const { group, name: title, error } of wrong) {
        console.log(`    ${group}: ${title}: ${error}`)
      }
    }
  } finally {
    await browser.close()
  }
} finally {
  rmSync(place, { recursive: true })
}
process.exit(failed > 0 ? 1 : 0)

async function check(
  browser: Awaited<ReturnType<typeof launch>>,
  { isolated, request }: (typeof SCENARIOS)[number],
): Promise<Report> {
  const site = await serve(place, isolated)
  try {
    const page = await browser.newPage()
    page.on('pageerror', (error) => console.log(`  in the page: ${error.message}`))
    await page.goto(site.url)
    await page.waitForFunction(() => 'runChecks' in window)
    const report = await page.evaluate((asked) => window.runChecks(asked), request)
    await page.close()
    return report
  } finally {
    site.close()
  }
}
