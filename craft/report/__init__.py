"""Seeing runs: side by side in the terminal, as a page that opens from the disk, and as figures for a paper."""

from craft.report.comparison import Comparison as Comparison
from craft.report.comparison import compare as compare
from craft.report.facts import facts as facts
from craft.report.figures import check_figures as check_figures
from craft.report.figures import write_figures as write_figures
from craft.report.find import Found as Found
from craft.report.find import find as find
from craft.report.page import check_target as check_target
from craft.report.page import save as save
from craft.report.page import write_page as write_page
from craft.report.story import Story as Story
from craft.report.story import read as read
from craft.report.table import table as table
