import { describeKernels } from '../contracts/kernels.ts'
import { referenceKernels } from './kernels.ts'

describeKernels('reference', referenceKernels)
