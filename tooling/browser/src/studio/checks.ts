/** The studio in headless Chromium, as people use it. Each check gets a fresh browser profile. */

import { FILE_CHECKS } from './files.ts'
import type { StudioCheck } from './harness.ts'
import { JOB_CHECKS } from './jobs.ts'
import { PAGE_CHECKS } from './page.ts'
import { RESULT_CHECKS } from './results.ts'

export const STUDIO_CHECKS: readonly StudioCheck[] = [
  ...RESULT_CHECKS,
  ...JOB_CHECKS,
  ...PAGE_CHECKS,
  ...FILE_CHECKS,
]
